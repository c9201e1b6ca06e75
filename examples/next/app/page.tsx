// The page, rendered on the server but for the component in it.
import { Writer } from "./Writer";

export default function Page() {
  return (
    <main>
      <h1>A model on the server, and in the browser</h1>
      <Writer />
    </main>
  );
}
