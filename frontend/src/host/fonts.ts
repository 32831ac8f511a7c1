/** TensorBoard ships Roboto, but an iframe does not inherit fonts: take over the host's font faces. */
export function adoptFonts(host: Document): void {
  try {
    const faces: string[] = [];
    for (const sheet of host.styleSheets) {
      const base = sheet.href ?? host.baseURI;
      for (const rule of sheet.cssRules) {
        if (/^@font-face[\s\S]*font-family:\s*["']?Roboto\b/.test(rule.cssText))
          faces.push(absolute(rule.cssText, base));
      }
    }
    if (faces.length === 0) return;
    const style = document.createElement("style");
    style.textContent = faces.join("\n");
    document.head.append(style);
  } catch {
    // Sheets that may not be read: the system's font it is.
  }
}

function absolute(css: string, base: string): string {
  return css.replace(/url\(["']?([^"')]+)["']?\)/g, (_, link: string) => `url("${new URL(link, base).href}")`);
}
