//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDraw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curves.svg")
	curves := map[string]*curve{
		"slot_take": {X: []int{10, 100, 1000}, P50: []float64{0.1, 0.11, 0.1}, P99: []float64{0.5, 0.6, 0.4}},
		"one_point": {X: []int{1}, P50: []float64{2}, P99: []float64{2}},
		"nothing":   {},
	}
	if err := draw(path, curves); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	circles := 0
	for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("it is no XML: %v\n%s", err, text)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 8 || strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
		t.Errorf("%d points are drawn, want 8:\n%s", circles, text)
	}
}
