//go:build linux

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// saying is an agent that says the same whatever it is asked, and then again and again when there is more. It counts what it is asked.
func saying(answer, more string) (d scripted, asked *atomic.Int64) {
	asked = &atomic.Int64{}
	return func(conn net.Conn, _ *http.Request) {
		asked.Add(1)
		_, err := io.WriteString(conn, answer)
		for err == nil && more != "" {
			_, err = io.WriteString(conn, more)
		}
	}, asked
}

// answer is a whole answer of an agent.
func answer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func TestContextEndsARefusalThatStops(t *testing.T) {
	refusal := answer(http.StatusNotFound, `{"code":"not_found","error":"no such program"}`)
	whole, _ := saying(refusal, "")
	if err := within(t, func() error { return guest.Command(whole, "x").Run(t.Context()) }); !errors.Is(err, guest.ErrNotFound) {
		t.Errorf("a whole refusal: %v", err)
	}
	part, _ := saying(refusal[:len(refusal)-1], "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := within(t, func() error { return guest.Command(part, "x").Run(ctx) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a part of one: %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	health := func(d guest.Dialer) error { _, err := guest.GetHealth(t.Context(), d); return err }
	run := func(d guest.Dialer) error { return guest.Command(d, "x").Run(t.Context()) }
	for name, ask := range map[string]func(guest.Dialer) error{"health": health, "exec": run} {
		for what, head := range map[string]string{"chunks": "Transfer-Encoding: chunked", "a length": "Content-Length: 1000000000000"} {
			d, asked := saying("HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n", "10000\r\n"+strings.Repeat("x", 1<<16)+"\r\n")
			if err := within(t, func() error { return ask(d) }); !errors.Is(err, guest.ErrAgent) || asked.Load() != 1 {
				t.Errorf("%s, endless with %s: asked %d times, %v", name, what, asked.Load(), err)
			}
		}
	}
	const most = `{"protocol": 1}`
	for n, ok := range map[int]bool{wire.MaxBody: true, wire.MaxBody + 1: false} {
		d, _ := saying(answer(http.StatusOK, most+strings.Repeat(" ", n-len(most))), "")
		if err := within(t, func() error { return health(d) }); (err == nil) != ok || !ok && !errors.Is(err, guest.ErrAgent) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestWhatIsNoAnswerIsNotAskedForAgain(t *testing.T) {
	run := func(d guest.Dialer) error {
		c := guest.Command(d, "x")
		c.Stdin = strings.NewReader("")
		return c.Run(t.Context())
	}
	exited := string(wire.Append(wire.Append(wire.Append(nil, wire.StdoutEnd, nil), wire.StderrEnd, nil), wire.Exited, []byte(`{"code":0}`)))
	for name, tc := range map[string]struct {
		answer, more string
		ok           bool
	}{
		"an answer":                      {answer: switching + exited, ok: true},
		"a header without end":           {answer: "HTTP/1.1 101 x\r\n", more: "A: b\r\n"},
		"a line without end":             {answer: "HTTP/1.1 101 x\r\n", more: "A"},
		"no HTTP":                        {answer: "SSH-2.0-OpenSSH\r\n\r\n"},
		"a negative length":              {answer: "HTTP/1.1 500 x\r\nContent-Length: -1\r\n\r\n"},
		"chunks that are none":           {answer: "HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", more: "x\r\n"},
		"more input than there was":      {answer: strings.Replace(switching, wire.HeaderStdin+": 0", wire.HeaderStdin+": 99", 1)},
		"more input than there was, end": {answer: strings.Replace(switching, wire.HeaderStdin+": 0", wire.HeaderStdin+": 99", 1) + exited},
	} {
		t.Run(name, func(t *testing.T) {
			d, asked := saying(tc.answer, tc.more)
			err := within(t, func() error { return run(d) })
			if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, guest.ErrAgent) || asked.Load() != 1 {
				t.Errorf("asked %d times, %v", asked.Load(), err)
			}
		})
	}
}

func TestANewerAgentIsRefused(t *testing.T) {
	for protocol, want := range map[int]error{wire.Version: nil, wire.Version + 1: microvm.ErrIncompatible, 99: microvm.ErrIncompatible, 0: guest.ErrAgent} {
		d, _ := saying(answer(http.StatusOK, fmt.Sprintf(`{"protocol": %d}`, protocol)), "")
		for name, ask := range map[string]func() error{
			"health": func() error { _, err := guest.GetHealth(t.Context(), d); return err },
			"attach": func() error { return guest.Attach(d, "a").Start(t.Context()) },
			"wait":   func() error { return guest.Wait(t.Context(), d) },
		} {
			if name == "attach" && want == nil || name == "wait" && want == guest.ErrAgent {
				continue // it has no features; it may yet become an agent
			}
			err := within(t, ask)
			if !errors.Is(err, want) {
				t.Errorf("%s, protocol %d: %v, want %v", name, protocol, err, want)
			}
			if want == microvm.ErrIncompatible && err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%d, and this program's %d", protocol, wire.Version)) {
				t.Errorf("%s does not tell both versions: %v", name, err)
			}
		}
	}
}
