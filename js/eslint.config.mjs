import tseslint from "typescript-eslint";

export default tseslint.config(...tseslint.configs.strictTypeChecked, {
  languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
  rules: {
    // Waiting is for the one who has to know the end; the rest is said with `void`.
    "@typescript-eslint/no-confusing-void-expression": "off",
    "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    "@typescript-eslint/no-invalid-void-type": "off",
    // The types have a document everywhere, and do not see what changes while one waits.
    "@typescript-eslint/no-unnecessary-condition": "off",
  },
});
