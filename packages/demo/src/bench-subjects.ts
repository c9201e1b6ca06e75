// What the page takes from bench/: cases, their inputs and the peer's forms, with types. Measures
// nothing.

import cases from "../../../bench/cases.json" with { type: "json" };
import { formsOf as formsIn } from "../../../bench/subjects/inputs.mjs";
import { encodeGraph, graphs, indexIn as indexInGraph } from "../../../bench/subjects/onnx-graphs.mjs";

/** A shape and what is done with it. */
export interface Case {
  readonly id: string;
  readonly op: string;
  readonly out: readonly number[];
  readonly q?: readonly number[];
  readonly x?: readonly number[];
}

/** A form in which onnxruntime computes a case. */
export interface Form {
  /** How its answer lies, where that matters. */
  readonly layout?: string;
  readonly inputs: (test: Case) => Readonly<Record<string, { data: Float32Array<ArrayBuffer>; dims: number[] }>>;
}

/** Those that a page finishes in seconds. */
const IDS = ["causal-512", "causal-1024", "group-norm-64", "rms-norm-128"];

const isOurs = (test: object): test is Case => "out" in test && "id" in test && IDS.includes(String(test.id));

export const benchCases: readonly Case[] = (cases as readonly object[]).filter(isOurs);

export const formsOf = (test: Case): Readonly<Record<string, Form>> => formsIn(graphs, test) as Readonly<Record<string, Form>>;

/** The model of a form as the bytes of its file; `onnx` is onnx-proto's. */
export const modelOf = (onnx: unknown, form: Form, test: Case): Uint8Array => encodeGraph(onnx, form, test) as Uint8Array;

/** Where an answer of a form holds what (batch, head, row, channel) number `i` is. */
export const indexIn = (form: Form, test: Case, i: number): number => indexInGraph({ layout: form.layout }, test, i) as number;
