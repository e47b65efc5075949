// Before the header is painted: the theme as Gradio will choose it, the tab of the address, the short statement
// for those who have read the long one.
{
  const theme = new URLSearchParams(location.search).get("__theme");
  const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.classList.toggle("dark", isDark);
  const names = [...document.querySelectorAll("#tabs a")].map((link) => link.getAttribute("href").slice(1));
  const place = location.hash.slice(1);
  document.documentElement.dataset.tab = names.find((name) => place.split("-")[0] === name) ?? names[0];
  try {
    document.querySelector("#statement details").open = !localStorage.getItem("xray_hf-statement-read");
  } catch { /* a browser that keeps nothing shows all of it */ }
}
