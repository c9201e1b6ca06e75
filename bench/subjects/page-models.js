// Our models in a page, through the package's public door.
import * as api from "/packages/diffattn/dist/browser.js";
import { LanguageModel } from "/packages/diffattn/dist/models.js";
import { loadOptions, modelHandlers } from "./model-door.mjs";
import { answering, runtime } from "./page-answers.js";

answering(
  modelHandlers({
    about: () => ({ runtime: runtime() }),
    async prepare({ isa, threads = 1 }) {
      api.dispose();
      await api.init({ isa, threads });
      const running = api.info();
      if (isa && running.isa !== isa) throw new Error(`${isa} was asked for, ${running.isa} runs`);
      if (running.threads !== threads) throw new Error(`${threads} threads were asked for, ${running.threads} run`);
    },
    open: ({ case: test, variant, place }) => LanguageModel.load(place, loadOptions(test, variant)),
  }),
);
