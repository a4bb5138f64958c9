/** Pictures that the user chooses, photographs, drops or pastes. */

/**
 * @param {{target: Element, inputs: HTMLInputElement[], onFile: (file: Blob) => void,
 *   onUnsupported: () => void}} options
 *   `target` accepts dropped pictures; pasting works everywhere. `onUnsupported` is called for
 *   files that are not pictures.
 */
export function acceptFiles({ target, inputs, onFile, onUnsupported }) {
  for (const input of inputs)
    input.addEventListener("change", () => {
      const [file] = input.files;
      if (file) onFile(file);
      input.value = ""; // so that the same file can be chosen again
    });
  for (const name of ["dragenter", "dragover"])
    target.addEventListener(name, (event) => {
      event.preventDefault();
      target.classList.add("over");
    });
  for (const name of ["dragleave", "drop"])
    target.addEventListener(name, () => target.classList.remove("over"));
  // A picture dropped beside the pad must not replace the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    accept(event.dataTransfer, onFile, onUnsupported);
  });
  document.addEventListener("paste", (event) => accept(event.clipboardData, onFile, onUnsupported));
}

function accept(transfer, onFile, onUnsupported) {
  const files = [...(transfer?.files ?? [])];
  // Some systems do not know the type of every picture, so a file without a type may be one.
  const file = files.find((each) => each.type.startsWith("image/")) ?? files.find((each) => !each.type);
  if (file) onFile(file);
  else if (files.length) onUnsupported();
}
