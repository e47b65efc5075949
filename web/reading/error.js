/** An image that cannot be used; its message is a sentence for a person. */
export class ImageError extends Error {}

export function refuse(sentence) {
  throw new ImageError(sentence);
}

/** Refuse a file that only the Python reader reads. what: the file in words. */
export function refuseHere(name, what) {
  const others = "use the Gradio demo or `xray-hf predict`, or export the X-ray as PNG.";
  refuse(`${name} is ${what}, which this page does not read; ${others}`);
}
