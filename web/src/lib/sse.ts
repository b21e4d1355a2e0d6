// Server-sent events out of pieces of text, however it is cut. Pure; the connection is in `events`.

export interface SentEvent {
  name: string;
  data: string;
}

export class EventParser {
  #rest = "";

  /** The events that are whole with this piece. Comments, which keep connections open, are none. */
  push(piece: string): SentEvent[] {
    const blocks = (this.#rest + piece).split("\n\n");
    this.#rest = blocks.pop() ?? "";
    return blocks.map(parse).filter((event) => event !== null);
  }
}

function parse(block: string): SentEvent | null {
  const field = (name: string) => {
    const lines = block.split("\n").filter((line) => line.startsWith(`${name}: `));
    return lines.map((line) => line.slice(name.length + 2)).join("\n");
  };
  const name = field("event");
  return name === "" ? null : { name, data: field("data") };
}
