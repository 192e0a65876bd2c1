//go:build linux

package main

import (
	"io"
	"os"
	"strings"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tangle-network/microvm-runtime/image"
)

// withProgress shows on a terminal how far a verb is.
func withProgress(verb func(progress func(image.Progress)) error) error {
	b := newBars(os.Stderr)
	err := verb(b.tell)
	b.end()
	return err
}

// bars are the progress bars of one verb, one for each thing that it does.
type bars struct {
	all *mpb.Progress
	by  map[image.Progress]*mpb.Bar // By stage and layer.
}

// newBars shows bars on w where that is a terminal.
func newBars(w io.Writer, options ...mpb.ContainerOption) *bars {
	return &bars{all: mpb.New(append(options, mpb.WithOutput(w), mpb.WithWidth(48))...), by: map[image.Progress]*mpb.Bar{}}
}

func (b *bars) tell(p image.Progress) {
	key := image.Progress{Stage: p.Stage, Layer: p.Layer}
	bar := b.by[key]
	if bar == nil {
		bar = b.all.AddBar(p.Total, mpb.PrependDecorators(decor.Name(title(p), decor.WCSyncSpaceR)), mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
		b.by[key] = bar
	}
	bar.SetTotal(p.Total, false)
	bar.SetCurrent(p.Done)
	if p.Done == p.Total {
		bar.SetTotal(p.Total, true)
	}
}

// end leaves the bars as they are.
func (b *bars) end() {
	for _, bar := range b.by {
		bar.Abort(false)
	}
	b.all.Wait()
}

func title(p image.Progress) string {
	if p.Layer == "" {
		return string(p.Stage)
	}
	_, digest, _ := strings.Cut(p.Layer, ":")
	return string(p.Stage) + " " + digest[:min(12, len(digest))]
}
