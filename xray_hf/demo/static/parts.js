// <page-part name="evidence"> is filled when it comes into view: what nobody opens is not sent.
import { scrollToPlace } from "./navigation.js";

class PagePart extends HTMLElement {
  connectedCallback() {
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      this.fill();
    });
    seen.observe(this);
  }

  async fill() {
    try {
      const answer = await fetch(`parts/${this.getAttribute("name")}`);
      if (!answer.ok) throw new Error(answer.statusText);
      this.innerHTML = await answer.text();
    } catch {
      this.innerHTML = '<p role="alert">This part could not be loaded. <button type="button">Try again</button></p>';
      this.querySelector("button").addEventListener("click", () => this.fill());
      return;
    }
    this.removeAttribute("aria-busy");
    // Only the browser knows at which address the page is seen.
    const address = (location.origin + location.pathname).replace(/\/$/, "");
    for (const each of this.querySelectorAll(".address")) each.textContent = address;
    scrollToPlace();
  }
}

export function fillParts() {
  customElements.define("page-part", PagePart);
}
