// The page's own functions, called as programs call them: a POST, then a stream of events.

// Below the page's <base>, wherever a proxy serves it.
const address = (name) => new URL(`gradio_api/call/${name}`, document.baseURI);
const UNREACHABLE = "The server did not answer; try again.";

async function words(response) {
  const said = await response.json().catch(() => ({}));
  return said.detail ?? UNREACHABLE;
}

// How calls name an upload.
export const asFile = (path) => ({ path, meta: { _type: "gradio.FileData" } });

// What the function returns; throws an Error with words for the visitor.
export async function call(name, data) {
  let response;
  try {
    response = await fetch(address(name), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ data }),
    });
    if (!response.ok) throw new Error(await words(response));
    const { event_id: number } = await response.json();
    response = await fetch(`${address(name)}/${number}`);
    if (!response.ok) throw new Error(await words(response));
    return lastOf(await response.text());
  } catch (error) {
    throw error instanceof TypeError ? new Error(UNREACHABLE) : error;  // fetch without a network
  }
}

function lastOf(stream) {
  const event = stream.split("\n\n").find((each) => each.startsWith("event: complete\n"));
  if (!event) throw new Error(UNREACHABLE);
  return JSON.parse(event.slice(event.indexOf("data: ") + 6))[0];
}
