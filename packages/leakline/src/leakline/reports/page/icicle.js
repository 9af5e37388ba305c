// Zooms the icicle into the box that was clicked, and opens everything for the printer.
(function () {
  "use strict";
  var icicle = document.getElementById("icicle");
  if (icicle) {
    var boxes = Array.prototype.slice.call(icicle.children).map(function (box) {
      return { box: box, x: +box.dataset.x, w: +box.dataset.w, d: +box.dataset.d };
    });
    icicle.addEventListener("click", function (event) {
      var chosen = boxes.find(function (each) { return each.box === event.target.closest("button"); });
      if (!chosen) return;
      boxes.forEach(function (each) {
        var around = each.d <= chosen.d && each.x <= chosen.x + 1e-9 && each.x + each.w >= chosen.x + chosen.w - 1e-9;
        var inside = each.d > chosen.d && each.x >= chosen.x - 1e-9 && each.x + each.w <= chosen.x + chosen.w + 1e-9;
        each.box.hidden = !around && !inside;
        each.box.style.left = around ? "0%" : ((each.x - chosen.x) / chosen.w) * 100 + "%";
        each.box.style.width = around ? "100%" : (each.w / chosen.w) * 100 + "%";
      });
    });
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (each) { each.open = true; });
  });
})();
