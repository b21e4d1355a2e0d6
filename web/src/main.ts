// The page's entry: theme first, so that nothing is painted in the wrong one, then the components.
import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { startTheme } from "./state/theme.svelte";

startTheme();
const target = document.getElementById("app");
if (target) mount(App, { target });
