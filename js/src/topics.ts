// Topic names and patterns, as the broker has them: segments parted by ":", "*" is any one
// segment, "**" as the last one is the rest.

export function matches(pattern: string, name: string): boolean {
  if (pattern === name) return true;
  const have = pattern.split(":");
  const want = name.split(":");
  if (have.at(-1) === "**") {
    if (want.length < have.length) return false;
    have.pop();
    want.length = have.length;
  }
  return have.length === want.length && have.every((part, index) => part === "*" || part === want[index]);
}

/** The topics in the query of `url`. */
export function topicsOf(url: string): string[] {
  return (new URLSearchParams(query(url)).get("topics") ?? "").split(",").map((one) => one.trim()).filter(Boolean);
}

/** `url` with these topics in its query; as it is if they are there already. */
export function withTopics(url: string, topics: ReadonlySet<string>): string {
  const names = [...topics].join(",");
  if (names === topicsOf(url).join(",")) return url;
  return withQuery(url, (params) => {
    params.delete("topics");
    if (names) params.set("topics", names);
  });
}

export function withQuery(url: string, change: (params: URLSearchParams) => void): string {
  const params = new URLSearchParams(query(url));
  change(params);
  const text = params.toString();
  return url.replace(/[?#].*$/s, "") + (text && `?${text}`);
}

function query(url: string): string {
  return /\?([^#]*)/.exec(url)?.[1] ?? "";
}
