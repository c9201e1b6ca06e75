// Variables of the environment, in Node and what is like it.

/** A variable's value; one that may not be read (Deno's permissions) is not set. */
export function variable(name: string): string | undefined {
  try {
    return process.env[name];
  } catch {
    return undefined;
  }
}
