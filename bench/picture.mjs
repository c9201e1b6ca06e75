// Draws the chart of the README anew, from the newest records. Measures nothing.
//
//   node bench/picture.mjs
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMain, root } from "../scripts/tools.mjs";
import { chart } from "./chart.mjs";
import { shownRecords } from "./record.mjs";

export const picture = join(root, "docs/images/speed.svg");

export const draw = () => writeFileSync(picture, chart(shownRecords()));

if (isMain(import.meta)) draw();
