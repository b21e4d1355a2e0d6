// Draws a formula in an element: a pending mark while KaTeX is being loaded, the
// formula, or its source where it cannot be drawn.

/** A longer source is shown as it is. */
export const FORMULA_LIMIT = 10_000;

type Typeset = typeof import("./typeset").typeset;

let typeset: Typeset | undefined;
let loading: Promise<Typeset> | undefined;

function load(): Promise<Typeset> {
  loading ??= import("./typeset").then(
    (module) => (typeset = module.typeset),
    (error: unknown) => {
      loading = undefined;
      throw error;
    },
  );
  return loading;
}

function showSource(element: HTMLElement, tex: string, reason: string): void {
  const source = document.createElement("code");
  source.className = "formula-source";
  source.title = reason;
  source.textContent = tex;
  element.replaceChildren(source);
}

function showPending(element: HTMLElement): void {
  const mark = document.createElement("span");
  mark.className = "formula-pending";
  mark.setAttribute("aria-hidden", "true");
  mark.textContent = "…";
  element.replaceChildren(mark);
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function draw(engine: Typeset, element: HTMLElement, tex: string, display: boolean): void {
  try {
    engine(tex, display, element);
  } catch (error) {
    showSource(element, tex, message(error));
  }
}

/** Draws the formula in `element`; call the returned function when it is no longer wanted there. */
export function drawFormula(element: HTMLElement, tex: string, display: boolean): () => void {
  let wanted = true;
  const stop = () => {
    wanted = false;
  };
  if (tex.length > FORMULA_LIMIT) {
    showSource(element, tex, "This formula is too long to be drawn.");
  } else if (typeset) {
    draw(typeset, element, tex, display);
  } else {
    showPending(element);
    load().then(
      (engine) => wanted && draw(engine, element, tex, display),
      (error: unknown) => wanted && showSource(element, tex, message(error)),
    );
  }
  return stop;
}
