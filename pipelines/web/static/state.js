// What the page shows, in the part of the address that is not sent to the server.

export function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function write(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(kept).toString();
  if (location.hash.slice(1) !== text) history.replaceState(null, "", `#${text}`);
}

export const merge = (values) => write({ ...read(), ...values });
