// What tests in TypeScript ask of the loader.

export interface Machine {
  platform: string;
  arch: string;
  libc?: "glibc" | "musl";
  getGlibc?: () => string | undefined;
  restricted?: boolean;
}
export function fileOf(target: string): string;
export function targetOf(machine: Machine): string;
export function thisMachine(): Machine;
