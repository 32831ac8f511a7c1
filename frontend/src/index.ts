/** Entry of the TensorBoard plugin: the page imports this module and calls `render()`. */
import { h, render as renderInto } from "preact";
import { Api } from "./api/api";
import { App } from "./app";
import { connect } from "./host/tensorboard";
import { createStore } from "./state/store";
import bar from "./style/bar.css?inline";
import base from "./style/base.css?inline";
import beside from "./style/beside.css?inline";
import charts from "./style/charts.css?inline";
import chooser from "./style/chooser.css?inline";
import compare from "./style/compare.css?inline";
import controls from "./style/controls.css?inline";
import feedback from "./style/feedback.css?inline";
import heatmap from "./style/heatmap.css?inline";
import help from "./style/help.css?inline";
import overview from "./style/overview.css?inline";
import tokens from "./style/tokens.css?inline";

export function render(): void {
  const style = document.createElement("style");
  style.textContent = [
    tokens,
    base,
    controls,
    chooser,
    feedback,
    charts,
    heatmap,
    bar,
    overview,
    compare,
    beside,
    help,
  ].join("\n");
  document.head.append(style);
  const root = document.createElement("div");
  document.body.append(root);
  renderInto(h(App, { store: createStore(new Api(), connect()) }), root);
}
