// What every page has around it.
import type { ReactNode } from "react";

export const metadata = { title: "A model in Next" };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}
