// The public names of training, each with its public type, for every entry of them.

import * as dataset from "./dataset.js";
import * as trainer from "./trainer.js";
import type * as types from "./types.js";

export const createDataset: typeof types.createDataset = dataset.createDataset;
export const Trainer: typeof types.Trainer = trainer.Trainer;
export const train: typeof types.train = trainer.train;
