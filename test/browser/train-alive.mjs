// Whether the page stays alive while it trains: no task longer than 50 ms, in Chromium, which tells
// them. The tests of its tab (demo-train.mjs), with that looked at. Needs a quiet machine and a built
// page.
//
//   npm run check:page-train
process.env.DIFFATTN_CHECK_ALIVE = "1";
process.argv.push("chromium");
await import("./demo-train.mjs");
