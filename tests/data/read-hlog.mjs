// Prints what hdr-histogram-js, a port by HdrHistogram's own project, finds in a log: {"count", "p50", "p90", "p99", "max"}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const require = createRequire(process.argv[2] + "/");
const { HistogramLogReader, build } = require("hdr-histogram-js");

const reader = new HistogramLogReader(readFileSync(process.argv[3], "utf8"), 64);
const merged = build({ lowestDiscernibleValue: 1, highestTrackableValue: 3600e9, numberOfSignificantValueDigits: 3, bitBucketSize: 64 });
let histogram;
while ((histogram = reader.nextIntervalHistogram())) merged.add(histogram);
const at = (percent) => Number(merged.getValueAtPercentile(percent));
console.log(JSON.stringify({ count: Number(merged.totalCount), p50: at(50), p90: at(90), p99: at(99), max: Number(merged.maxValue) }));
