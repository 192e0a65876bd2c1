//go:build linux

package pager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/jail"
)

const controlName = "pager.sock"

const (
	doStats  = "stats"
	doRecord = "finish recording"
)

// question is what a pager is asked.
type question struct {
	Do string `json:"do"`
}

type answer struct {
	Stats Stats `json:"stats"`
}

func (p *Pager) answer(q question) (a answer, err error) {
	switch q.Do {
	case doStats:
	case doRecord:
		err = p.finishRecording()
	default:
		err = fmt.Errorf("unknown question %q", q.Do)
	}
	a.Stats = p.Stats()
	return a, err
}

// Look asks the pager of a directory for its Stats. Where none lives, they are the last ones of the VM that has ended, or fs.ErrNotExist.
func Look(ctx context.Context, dir string) (Stats, error) {
	a, err := ask(ctx, dir, question{doStats})
	if netError := (net.Error)(nil); !errors.As(err, &netError) {
		return a.Stats, err
	}
	last, failed := readStats(dir)
	if failed != nil {
		return last, errors.Join(err, failed)
	}
	return last, nil
}

// FinishRecording has the pager write the order of faults so far to Config.Record, and record no more.
func FinishRecording(ctx context.Context, dir string) error {
	_, err := ask(ctx, dir, question{doRecord})
	return err
}

func ask(ctx context.Context, dir string, q question) (answer, error) {
	dial := func(ctx context.Context) (net.Conn, error) { return jail.Dial(ctx, dir, controlName, os.Geteuid()) }
	return helper.Ask[answer](ctx, "the pager", dial, q)
}
