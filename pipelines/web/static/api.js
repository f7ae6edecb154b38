// Requests to this page's own server.

async function answered(response) {
  if (response.ok) return response.status === 204 ? null : response.json();
  let text = `${response.status} ${response.statusText}`;
  try {
    const { detail } = await response.json();
    text = Array.isArray(detail) ? detail.map((one) => one.msg).join("; ") : detail;
  } catch { /* no JSON: the status must do */ }
  const error = new Error(text);
  error.status = response.status;
  error.retryAfter = Number(response.headers.get("retry-after")) || 0;
  throw error;
}

export const get = async (path, signal) => answered(await fetch(path, { signal }));

export async function post(path, body, signal) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal };
  for (let turn = 0; ; turn += 1) {
    try {
      return await answered(await fetch(path, options));
    } catch (error) {
      if (error.status !== 503 || turn > 4) throw error; // a full queue says when to come back
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(1, error.retryAfter)));
    }
  }
}

// fetch cannot tell how far an upload is.
export function upload(file, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", "/v1/images");
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-file-name", encodeURIComponent(file.name));
    request.upload.addEventListener("progress", (event) => progress(event.loaded / (event.total || 1)));
    request.addEventListener("load", () => {
      let content = {};
      try { content = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status < 300) resolve(content);
      else reject(new Error(content.detail || `${request.status} ${request.statusText}`));
    });
    request.addEventListener("error", () => reject(new Error("the picture could not be sent: the server ended the connection")));
    request.send(file);
  });
}
