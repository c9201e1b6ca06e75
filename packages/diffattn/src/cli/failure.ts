// What ends a command early, and how the process then ends. Prints nothing.

/** Exit codes of the command line. */
export const Exit = { ok: 0, failed: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

/** The command was asked for in a way that cannot be meant. */
export class UsageError extends Error {}

/** Something that a user gave, or the machine, stands in the way. */
export class Failure extends Error {}

/** A signal ended the command, which has done what it does then: nothing is to be said. */
export class Stopped extends Error {
  constructor(readonly code: number) {
    super("stopped");
  }
}

/** What something thrown says, on one line. */
export function sentence(thrown: unknown): string {
  const said = thrown instanceof Error ? thrown.message : String(thrown);
  // A carriage return alone is no line end, and is shown where it is printed.
  return said.replace(/(?:[ \t\n]|\r\n)+/g, " ").trim();
}

/** Node's errors of files say what happened, but not to whom it may matter. */
export function fileFailure(path: string, thrown: unknown, doing = "read"): Failure {
  const { code } = thrown as { code?: string };
  const known: Record<string, string> = {
    ENOENT: doing === "written" ? "there is no such folder" : "there is no such file",
    EISDIR: "it is a folder",
    ENOTDIR: "a part of its path is no folder",
    EACCES: "access is denied",
    EPERM: "access is denied",
    ENXIO: "it is a device or a pipe, not a file",
    ENOSPC: "the disk is full",
    EDQUOT: "the disk is full",
    EROFS: "nothing can be written there",
    ENAMETOOLONG: "its name is too long",
    ELOOP: "its links lead in a circle",
    EEXIST: "it is there already; --force replaces it",
  };
  return new Failure(`${path}: cannot be ${doing}: ${(code && known[code]) ?? sentence(thrown)}`, { cause: thrown });
}
