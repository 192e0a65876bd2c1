//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// The drawing's size, in pixels: each curve has a picture of its own, one below the other. Both axes are logarithmic.
const (
	pictureWidth, pictureHeight = 640, 320
	margin                      = 60
)

// draw writes the curves as a picture (SVG): the median as a line, the 99th percentile as a dashed one, and each point's numbers.
func draw(path string, curves map[string]*curve) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", pictureWidth, pictureHeight*len(curves))
	for i, name := range slices.Sorted(maps.Keys(curves)) {
		fmt.Fprintf(&b, `<g transform="translate(0,%d)">`+"\n", i*pictureHeight)
		curves[name].draw(&b, name)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (c *curve) draw(b *strings.Builder, name string) {
	if len(c.X) == 0 {
		return
	}
	low, high := math.Inf(1), 0.0
	for _, y := range slices.Concat(c.P50, c.P99) {
		low, high = min(low, y), max(high, y)
	}
	across := axis(float64(slices.Min(c.X)), float64(slices.Max(c.X)), margin, pictureWidth-margin)
	up := axis(low, high, pictureHeight-margin, margin)
	fmt.Fprintf(b, `<text x="%d" y="20" font-weight="bold">%s, ms (line: p50, dashed: p99)</text>`+"\n", margin, name)
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#bbb"/>`+"\n", margin, margin, pictureWidth-2*margin, pictureHeight-2*margin)
	for _, line := range []struct {
		ys   []float64
		dash string
	}{{c.P50, ""}, {c.P99, ` stroke-dasharray="5 4"`}} {
		var points []string
		for i, y := range line.ys {
			x, y, value := across(float64(c.X[i])), up(y), y
			points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3"/><text x="%.1f" y="%.1f" text-anchor="middle">%.3g</text>`+"\n", x, y, x, y-8, value)
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="black"%s/>`+"\n", strings.Join(points, " "), line.dash)
	}
	for _, x := range c.X {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", across(float64(x)), pictureHeight-margin+18, x)
	}
}

// axis returns where on an axis from begin to end a value between low and high is. Values are above zero.
func axis(low, high, begin, end float64) func(float64) float64 {
	low, high = math.Log(max(low, 1e-6)), math.Log(max(high, 1e-6))
	return func(value float64) float64 {
		if high == low {
			return (begin + end) / 2
		}
		return begin + (end-begin)*(math.Log(max(value, 1e-6))-low)/(high-low)
	}
}
