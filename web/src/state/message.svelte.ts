// A message on the screen. Each holds its own reactive fields, so that a growing answer touches nothing but itself.
import type { Attachment, Message, MessageState, Role, Stats } from "../lib/types";

export class MessageView {
  readonly id: string;
  readonly parent_id: string | null;
  readonly role: Role;
  readonly created_at: string;
  readonly attachments: Attachment[];
  content = $state("");
  thinking = $state("");
  model = $state<string | null>(null);
  state = $state<MessageState>("complete");
  stats = $state.raw<Stats | null>(null);

  constructor(message: Message) {
    this.id = message.id;
    this.parent_id = message.parent_id;
    this.role = message.role;
    this.created_at = message.created_at;
    this.attachments = message.attachments ?? [];
    this.update(message);
  }

  update(message: Message): void {
    this.content = message.content;
    this.thinking = message.thinking ?? "";
    this.model = message.model;
    this.state = message.state;
    this.stats = message.stats;
  }
}
