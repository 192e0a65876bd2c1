//go:build linux

package main

import "testing"

// TestLosses: many faults in two periods are a guest that is lost. A few in each, or many in one, are none.
func TestLosses(t *testing.T) {
	for name, c := range map[string]struct {
		sums []uint64
		want int // The period that tells it; -1 for none.
	}{
		"none":               {[]uint64{0, 0, 0, 0}, -1},
		"a few in each":      {[]uint64{10, 900, 1800, 2700}, -1},
		"many in one":        {[]uint64{0, 50_000, 50_000, 50_010}, -1},
		"many, not in a row": {[]uint64{50_000, 50_000, 90_000, 90_000}, -1},
		"a guest is lost":    {[]uint64{0, 7, 150_007, 300_007, 450_007}, 3},
	} {
		l := losses{most: lostFaults}
		got := -1
		for i, sum := range c.sums {
			if l.add(sum) {
				got = i
			}
		}
		if got != c.want {
			t.Errorf("%s: told in period %d, want %d", name, got, c.want)
		}
	}
}

func TestParseStats(t *testing.T) {
	const text = "entries: 1200\noverrun: 34000\ncommit overrun: 7\nbytes: 52416\noldest event ts:   265.358973\nnow ts:   270.1\ndropped events: 3\nread events: 0\n"
	if got := parseStats(text); got != 35_200 {
		t.Errorf("%d events", got)
	}
	if got := parseStats(""); got != 0 {
		t.Errorf("%d events of nothing", got)
	}
}

func TestFunction(t *testing.T) {
	const text = "ffffffff81a18600 T before\nffffffff81a186e0 t spin\nffffffff81a186e0 T __pfx_spin\nffffffff81a18900 T behind\nffffffffc03e0000 t a\t[module]\n"
	if begin, end, err := function(text, "spin"); err != nil || begin != 0xffffffff81a186e0 || end != 0xffffffff81a18900 {
		t.Errorf("%#x to %#x, %v", begin, end, err)
	}
	if _, _, err := function(text, "spi"); err == nil {
		t.Error("there is a function that is not")
	}
}
