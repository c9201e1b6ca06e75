// Which arguments of a command are names of the Hugging Face Hub. Asks no one.

import { barePlaceOf, hubPlaceOf } from "../models/hub-name.js";
import { knownEndpoint } from "../models/node-hub-settings.js";
import { isThere } from "./checkpoint-output.js";

/**
 * Whether a source names a model of the hub, as the library has it; what is wrong with a name, the
 * library says.
 */
export async function isOfHub(source: string): Promise<boolean> {
  try {
    if (hubPlaceOf(source, knownEndpoint())) return true;
    return barePlaceOf(source, knownEndpoint()) !== undefined && !(await isThere(source));
  } catch {
    return true;
  }
}
