// Reads a message for Microsoft Teams on standard input, and has Microsoft's own library for
// Adaptive Cards parse its card. Prints what that library finds wrong, and what it understood.
import { createRequire } from "node:module";

// It is packed for browsers.
globalThis.self ??= globalThis;
const { AdaptiveCard, SerializationContext, Versions } = createRequire(import.meta.url)("adaptivecards/dist/adaptivecards.js");

let text = "";
for await (const chunk of process.stdin) text += chunk;
const message = JSON.parse(text);
const [attachment] = message.attachments;
const card = new AdaptiveCard();
const context = new SerializationContext(Versions.v1_4);
card.parse(attachment.content, context);
const found = [];
for (let at = 0; at < context.eventCount; at++) found.push(context.getEventAt(at).message);
const validation = card.validateProperties();
found.push(...validation.validationEvents.map((event) => event.message));
const kinds = [];
for (let at = 0; at < card.getItemCount(); at++) kinds.push(card.getItemAt(at).getJsonTypeName());
const actions = [];
for (let at = 0; at < card.getActionCount(); at++) actions.push(card.getActionAt(at).url);
console.log(
  JSON.stringify({ type: message.type, contentType: attachment.contentType, found, kinds, actions }),
);
