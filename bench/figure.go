//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// figure is one line of the bench.
type figure struct {
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"` // The median of ours.
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Ratio   float64 `json:"ratio"`   // Median of ours over the median of what it is held against; 0 without that.
	Limit   float64 `json:"limit"`   // What the ratio may be at most; 0 without that.
	Least   float64 `json:"least"`   // What the ratio must be at least; 0 without that.
	Beyond  float64 `json:"beyond"`  // What the median may be at most beyond that of what it is held against; 0 without that.
	Tail    float64 `json:"tail"`    // What the 99th percentile may be at most beyond three medians; 0 without that.
	Against string  `json:"against"` // What it is held against.
	N       int     `json:"n"`

	ours, theirs []float64
	curve        *curve
}

// curve is how a figure depends on a number.
type curve struct {
	X   []int     `json:"x"`
	P50 []float64 `json:"p50"` // In ms.
	P99 []float64 `json:"p99"`
}

func (c *curve) add(x int, samples []time.Duration) {
	ms := milliseconds(samples)
	c.X, c.P50, c.P99 = append(c.X, x), append(c.P50, percentile(ms, 50)), append(c.P99, percentile(ms, 99))
}

// within returns an error when the ratio is more, or less, than it may be.
func (f figure) within() error {
	if f.Limit > 0 && f.Ratio > f.Limit {
		return fmt.Errorf("%s: ratio %.3f is more than %.2f", f.Name, f.Ratio, f.Limit)
	}
	if beyond := f.P50 - percentile(f.theirs, 50); f.Beyond > 0 && beyond > f.Beyond {
		return fmt.Errorf("%s: %.3f %s beyond %s are more than %.2f", f.Name, beyond, f.Unit, f.Against, f.Beyond)
	}
	if tail := f.P99 - 3*f.P50; f.Tail > 0 && tail > f.Tail {
		return fmt.Errorf("%s: p99 is %.3f %s beyond three p50, more than %.2f", f.Name, tail, f.Unit, f.Tail)
	}
	if f.Ratio < f.Least {
		return fmt.Errorf("%s: ratio %.3f is less than %.2f", f.Name, f.Ratio, f.Least)
	}
	return nil
}

func (f figure) atMost(ratio float64) figure {
	f.Limit = ratio
	return f
}

func (f figure) atLeast(ratio float64) figure {
	f.Least = ratio
	return f
}

// String returns the figure's line.
func (f figure) String() string {
	line := fmt.Sprintf("%-16s %9.3f %s p50, %9.3f p99, n %d", f.Name, f.P50, f.Unit, f.P99, f.N)
	if f.Against != "" {
		line += fmt.Sprintf(", ratio %.3f against %s (%.3f)", f.Ratio, f.Against, percentile(f.theirs, 50))
	}
	if f.Beyond > 0 {
		line += fmt.Sprintf(", at most %.2f beyond, p99 at most 3 p50 + %.2f", f.Beyond, f.Tail)
	}
	if f.Limit > 0 {
		line += fmt.Sprintf(", at most %.2f", f.Limit)
	}
	if f.Least > 0 {
		line += fmt.Sprintf(", at least %.2f", f.Least)
	}
	return line
}

func newFigure(name string, ours []time.Duration, against string, theirs []time.Duration) figure {
	return figureOf(figure{Name: name, Unit: "ms", Against: against, ours: milliseconds(ours), theirs: milliseconds(theirs)})
}

// newThroughput is newFigure for a work of so many MiB: more is better, also of its ratio.
func newThroughput(name string, mib float64, ours []time.Duration, against string, theirs []time.Duration) figure {
	return figureOf(figure{Name: name, Unit: "MiB/s", Against: against, ours: rates(mib, ours), theirs: rates(mib, theirs)})
}

func rates(mib float64, durations []time.Duration) []float64 {
	out := make([]float64, len(durations))
	for i, d := range durations {
		out[i] = mib / d.Seconds()
	}
	return out
}

// figureOf counts what the samples say.
func figureOf(f figure) figure {
	f.N = len(f.ours)
	f.P50, f.P99 = percentile(f.ours, 50), percentile(f.ours, 99)
	f.Value = f.P50
	if len(f.theirs) > 0 {
		f.Ratio = f.P50 / percentile(f.theirs, 50)
	}
	return f
}

func milliseconds(durations []time.Duration) []float64 {
	out := make([]float64, len(durations))
	for i, d := range durations {
		out[i] = d.Seconds() * 1000
	}
	return out
}

// percentile returns the smallest sample that p percent are at most.
func percentile(samples []float64, p int) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
