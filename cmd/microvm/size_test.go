//go:build linux

package main

import "testing"

func TestSizes(t *testing.T) {
	for text, want := range map[string]int{
		"512": 512, "512m": 512, "512M": 512, "512mb": 512, "512MiB": 512, "2g": 2048, "2GiB": 2048, "1048576k": 1024, "1k": 1, "1t": 1 << 20, "0": 0,
		"": -1, "m": -1, "1x": -1, "-1": -1, "1.5g": -1, "1 g": -1, "99999999999t": -1, "2147483647t": -1, "g1": -1,
	} {
		got := -1
		if err := (mebibytes{&got}).Set(text); got != want || (err != nil) != (want == -1) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	n := 0
	if err := (processors{&n}).Set("2"); n != 2 || err != nil {
		t.Error(n, err)
	}
	if err := (processors{&n}).Set("1.5"); err == nil {
		t.Error("a part of a processor")
	}
}
