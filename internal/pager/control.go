//go:build linux

package pager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/jail"
)

const (
	controlName    = "pager.sock"
	answerPatience = 5 * time.Second // what a question and its answer may take
	maxAnswer      = 1 << 20
)

const (
	doStats  = "stats"
	doRecord = "finish recording"
)

// question is one line of JSON; the answer is one too.
type question struct {
	Do string `json:"do"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	Stats Stats  `json:"stats"`
}

// answer serves clients until the socket is closed.
func (p *Pager) answer() {
	for {
		conn, err := p.control.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // such as too many open files
			continue
		}
		p.serving.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(answerPatience))
			var q question
			if json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&q) == nil {
				json.NewEncoder(conn).Encode(p.do(q))
			}
		})
	}
}

func (p *Pager) do(q question) (a answer) {
	var err error
	switch q.Do {
	case doStats:
	case doRecord:
		err = p.finishRecording()
	default:
		err = fmt.Errorf("unknown question %q", q.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	a.Stats = p.Stats()
	return a
}

// Look asks the pager of a directory for its Stats. Where none lives, they are the last ones of the VM that has ended, or fs.ErrNotExist.
func Look(ctx context.Context, dir string) (Stats, error) {
	a, err := ask(ctx, dir, question{doStats})
	if netError := (net.Error)(nil); !errors.As(err, &netError) {
		return a.Stats, err
	}
	text, failed := os.ReadFile(statsPath(dir))
	if failed != nil {
		return a.Stats, errors.Join(err, failed)
	}
	return a.Stats, json.Unmarshal(text, &a.Stats)
}

// FinishRecording has the pager write the order of faults so far to Config.Record, and record no more.
func FinishRecording(ctx context.Context, dir string) error {
	_, err := ask(ctx, dir, question{doRecord})
	return err
}

func ask(ctx context.Context, dir string, q question) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := jail.Dial(ctx, dir, controlName, os.Geteuid())
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return a, err
	}
	if err := json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&a); err != nil {
		return a, fmt.Errorf("the pager's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New("the pager: " + a.Error)
	}
	return a, nil
}
