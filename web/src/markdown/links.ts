// Which addresses a model's answer may link to: the web and mail, by an absolute
// address. Everything else (javascript:, data:, file:, a path on this server) is
// shown as text by the caller.

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const LONGEST = 8_000;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;

/** The address in its normal form, or undefined where it may not be a link. */
export function safeHref(address: string): string | undefined {
  const trimmed = address.trim();
  if (trimmed.length > LONGEST || CONTROL.test(trimmed)) return undefined;
  try {
    const url = new URL(trimmed);
    return SCHEMES.has(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}
