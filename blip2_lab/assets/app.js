() => {
    // Runs once, when the page has loaded. Names for a screen reader that gradio (6.31) has no option for, and a picture
    // that is pasted or dropped anywhere on the page.
    const set = (node, name, text) => {
        if (text && node.getAttribute(name) !== text) node.setAttribute(name, text);
    };
    const nameAll = () => {
        for (const button of document.querySelectorAll(".thumbnail-item")) {
            set(button, "aria-label", button.querySelector(".caption-label")?.textContent.trim());
        }
        for (const image of document.querySelectorAll("#picture img")) set(image, "alt", "The picture you ask about");
        for (const button of document.querySelectorAll("#picture .image-container > button")) {
            set(button, "aria-label", "The picture you ask about: show it larger");
        }
        for (const group of document.querySelectorAll("#word")) {
            set(group, "role", "radiogroup");
            set(group, "aria-label", "Words of the answer");
        }
        for (const empty of document.querySelectorAll(".empty[aria-label]")) set(empty, "role", "img");
    };
    let planned = false;
    new MutationObserver(() => {
        if (planned) return;
        planned = true;
        requestAnimationFrame(() => { planned = false; nameAll(); });
    }).observe(document.body, { childList: true, subtree: true });
    nameAll();

    // The answers of two models are a table that is drawn anew with each word: it is told once, when it stands still.
    const told = document.createElement("div");
    told.setAttribute("role", "status");
    told.id = "told";
    document.body.append(told);
    let still;
    new MutationObserver(() => {
        clearTimeout(still);
        still = setTimeout(() => {
            const names = [...document.querySelectorAll("#answers thead th")].map(name => name.textContent);
            const newest = [...document.querySelectorAll("#answers tbody tr:nth-child(2) td")];
            const text = newest.map((answer, i) => `${names[i]}: ${answer.textContent}`).join(" ");
            if (told.textContent !== text) told.textContent = text;
        }, 1000);
    }).observe(document.body, { childList: true, subtree: true });

    const upload = (event, files) => {
        const input = document.querySelector("#picture-group > input[type=file]");
        const picture = [...files].find(file => file.type.startsWith("image/"));
        if (!picture || !input) return;
        event.preventDefault();
        event.stopPropagation();
        const chosen = new DataTransfer();
        chosen.items.add(picture);
        input.files = chosen.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    };
    document.addEventListener("paste", event => upload(event, event.clipboardData?.files ?? []), true);
    document.addEventListener("dragover", event => event.preventDefault());
    document.addEventListener("drop", event => upload(event, event.dataTransfer?.files ?? []), true);

    // One can type at once, but not on a phone: there a keyboard would cover the picture.
    if (matchMedia("(hover: hover) and (pointer: fine)").matches) {
        document.querySelector("#box textarea")?.focus({ preventScroll: true });
    }
}
