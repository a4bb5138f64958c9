/** Pictures that are chosen, photographed, dropped or pasted. */

/**
 * @param {{target: Element, inputs: HTMLInputElement[], onFile: (file: Blob) => void,
 *   onOther: () => void}} parts
 *   `target` is where pictures may be dropped; pasting works everywhere. `onOther` hears of files
 *   that are no pictures.
 */
export function takeFiles({ target, inputs, onFile, onOther }) {
  for (const input of inputs)
    input.addEventListener("change", () => {
      const [file] = input.files;
      if (file) onFile(file);
      input.value = ""; // so that the same file may be chosen again
    });
  for (const name of ["dragenter", "dragover"])
    target.addEventListener(name, (event) => {
      event.preventDefault();
      target.classList.add("over");
    });
  for (const name of ["dragleave", "drop"])
    target.addEventListener(name, () => target.classList.remove("over"));
  // A picture that misses the pad must not take the place of the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer, onFile, onOther);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData, onFile, onOther));
}

function take(transfer, onFile, onOther) {
  const files = [...(transfer?.files ?? [])];
  // Not every system knows the type of every picture: what has none may be one.
  const file = files.find((each) => each.type.startsWith("image/")) ?? files.find((each) => !each.type);
  if (file) onFile(file);
  else if (files.length) onOther();
}
