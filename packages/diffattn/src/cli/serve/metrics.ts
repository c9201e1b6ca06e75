// What the server counts, in Prometheus' text format. Knows no route.

/** Upper bounds of the histogram of times, in seconds. */
const BOUNDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

const label = (text: string): string => text.replace(/[\\"\n]/g, (letter) => (letter === "\n" ? "\\n" : `\\${letter}`));

/** How long things took. */
class Times {
  readonly #counts = BOUNDS.map(() => 0);
  #sum = 0;
  #count = 0;

  add(seconds: number): void {
    BOUNDS.forEach((bound, at) => {
      if (seconds <= bound) this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    });
    this.#sum += seconds;
    this.#count++;
  }

  lines(name: string): string[] {
    const buckets = BOUNDS.map((bound, at) => `${name}_bucket{le="${bound}"} ${this.#counts[at] ?? 0}`);
    return [...buckets, `${name}_bucket{le="+Inf"} ${this.#count}`, `${name}_sum ${this.#sum}`, `${name}_count ${this.#count}`];
  }
}

export class Metrics {
  /** By route and status. */
  readonly #requests = new Map<string, number>();
  readonly firstToken = new Times();
  promptTokens = 0;
  reusedTokens = 0;
  generatedTokens = 0;
  /** Requests whose connection was closed before their end. */
  closed = 0;
  readonly #begin = Date.now();

  request(route: string, status: number): void {
    const key = `route="${label(route)}",status="${status}"`;
    this.#requests.set(key, (this.#requests.get(key) ?? 0) + 1);
  }

  text(running: number, waiting: number): string {
    const lines: string[] = [];
    const tell = (name: string, type: string, help: string, values: readonly string[]): void => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...values);
    };
    const one = (name: string, type: string, help: string, value: number): void => tell(name, type, help, [`${name} ${value}`]);
    const requests = [...this.#requests].map(([key, count]) => `diffattn_requests_total{${key}} ${count}`);
    tell("diffattn_requests_total", "counter", "Requests that were answered.", requests);
    one("diffattn_requests_closed_total", "counter", "Requests whose connection was closed before their end.", this.closed);
    one("diffattn_prompt_tokens_total", "counter", "Tokens of prompts.", this.promptTokens);
    one("diffattn_reused_prompt_tokens_total", "counter", "Tokens of prompts that were not computed again.", this.reusedTokens);
    one("diffattn_generated_tokens_total", "counter", "Tokens that were written.", this.generatedTokens);
    one("diffattn_texts_running", "gauge", "Texts that are being written.", running);
    one("diffattn_texts_waiting", "gauge", "Texts that wait for a place.", waiting);
    const first = "diffattn_first_token_seconds";
    tell(first, "histogram", "From a request to its first token.", this.firstToken.lines(first));
    one("process_resident_memory_bytes", "gauge", "Memory of the process.", process.memoryUsage.rss());
    one("process_start_time_seconds", "gauge", "When the server started.", this.#begin / 1000);
    return `${lines.join("\n")}\n`;
  }
}
