// Run: make js && (cd js && npm pack), then npm install && npx vite here; Flask runs on port 5000.
export default { esbuild: { jsx: "automatic" }, server: { proxy: { "/sse": "http://localhost:5000" } } };
