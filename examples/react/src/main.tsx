// The page: the component, which a button takes away and brings back.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { Writer } from "./Writer.tsx";

function App() {
  const [isOpen, setIsOpen] = useState(true);
  return (
    <main>
      <button onClick={() => setIsOpen(!isOpen)}>{isOpen ? "Close" : "Open"}</button>
      {isOpen && <Writer source="/model/" />}
    </main>
  );
}

const root = document.querySelector("#root");
if (!root) throw new Error("the page has no #root");
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
