// Places that the matrix cannot bring up by itself, each with why: what speaks for them stands in the note of a place that is tried.

const group = "Elsewhere";

export const places = [{ name: "Electron", group, unavailable: "its binary comes from a host of its own, not with its npm package" }];
