//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"

	"github.com/tangle-network/microvm-runtime/image"
)

// Bars are there on a terminal and nowhere else, and they end whatever became of the verb.
func TestBars(t *testing.T) {
	tell := func(b *bars) {
		layer := "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		for _, p := range []image.Progress{
			{Stage: image.StageDownload, Layer: layer, Total: 3 << 20}, {Stage: image.StageDownload, Layer: layer, Done: 1 << 20, Total: 3 << 20}, {Stage: image.StageDownload, Layer: layer, Done: 3 << 20, Total: 3 << 20},
			{Stage: image.StageRead, Layer: layer, Done: 5 << 20}, {Stage: image.StageRead, Layer: layer, Done: 8 << 20, Total: 8 << 20}, {Stage: image.StageDownload, Layer: "sha256:fedc"},
			{Stage: image.StageBuild, Total: 7 << 20}, {Stage: image.StageBuild, Done: 2 << 20, Total: 7 << 20},
		} {
			b.tell(p)
		}
		b.end()
	}
	var terminal, file bytes.Buffer
	tell(newBars(&terminal, mpb.ForceAutoRefresh()))
	for _, want := range []string{"download 0123456789ab ", "3.0 MiB / 3.0 MiB", "read 0123456789ab ", "8.0 MiB / 8.0 MiB", "build ", "2.0 MiB / 7.0 MiB"} {
		if !strings.Contains(terminal.String(), want) {
			t.Errorf("%q is not among\n%s", want, terminal.String())
		}
	}
	tell(newBars(&file))
	if file.Len() > 0 {
		t.Errorf("in a file there is %q", file.String())
	}
}
