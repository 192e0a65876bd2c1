//go:build linux

package firecracker

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

//go:embed testdata/prober.py
var proberProgram string

const (
	proberSoon = 10 * time.Second        // within which what must come to a guest comes
	proberNot  = 1500 * time.Millisecond // how long a guest waits for what must not come
)

// prober is a program in a guest that tries its network, many things at once.
type prober struct {
	in io.Writer

	mu      sync.Mutex
	last    int
	waiting map[int]chan proberAnswer
}

type proberOrder struct {
	ID       int     `json:"id"`
	Do       string  `json:"do"`
	Protocol string  `json:"protocol,omitempty"`
	To       []any   `json:"to,omitempty"`
	From     string  `json:"from,omitempty"`
	Text     string  `json:"text,omitempty"`
	Size     int     `json:"size,omitempty"`
	Wait     float64 `json:"wait"`
	Skip     float64 `json:"skip"`
	Seconds  float64 `json:"seconds"`
}

type proberAnswer struct {
	ID     int             `json:"id"`
	Answer json.RawMessage `json:"answer"`
	Error  string          `json:"error"`
}

// to is a destination as the program takes it.
func to(at netip.AddrPort) []any { return []any{at.Addr().String(), at.Port()} }

func newProber(t *testing.T, vm *microvm.VM) *prober {
	t.Helper()
	p := &prober{waiting: map[int]chan proberAnswer{}}
	c := guest.Command(vm, "python3", "-c", proberProgram)
	var said strings.Builder
	c.Stderr = &said
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p.in = in
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.take(lines.Bytes())
		}
		err := c.Wait()
		p.end(fmt.Sprintf("the prober has ended: %v\n%s", err, said.String()))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

func (p *prober) take(line []byte) {
	var a proberAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		a.Error = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.waiting[a.ID]; c != nil {
		c <- a
		delete(p.waiting, a.ID)
	}
}

func (p *prober) end(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, c := range p.waiting {
		c <- proberAnswer{Error: why}
		delete(p.waiting, id)
	}
	p.in = nil
}

// begin gives an order; what it returns waits for the answer.
func (p *prober) begin(o proberOrder) func(into any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	o.ID = p.last
	answered := make(chan proberAnswer, 1)
	p.waiting[o.ID] = answered
	line, err := json.Marshal(o)
	if err == nil && p.in == nil {
		err = errors.New("the prober has ended")
	}
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	return func(into any) error {
		if err != nil {
			return err
		}
		select {
		case a := <-answered:
			if a.Error != "" {
				return fmt.Errorf("%+v: %s", o, a.Error)
			}
			return json.Unmarshal(a.Answer, into)
		case <-time.After(time.Minute):
			return fmt.Errorf("%+v: no answer", o)
		}
	}
}

// told gives an order and waits for its answer.
func told[T any](t *testing.T, p *prober, o proberOrder) (answer T) {
	t.Helper()
	if err := p.begin(o)(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// passes tries flows, "tcp ADDRESS:PORT" or "udp ADDRESS:PORT", all at once. An answer means that there and back is open.
func (p *prober) passes(t *testing.T, patience time.Duration, flows ...string) map[string]bool {
	t.Helper()
	answers := map[string]func(any) error{}
	for _, flow := range flows {
		protocol, address, _ := strings.Cut(flow, " ")
		answers[flow] = p.begin(proberOrder{Do: "pass", Protocol: protocol, To: to(netip.MustParseAddrPort(address)), Text: t.Name() + " " + flow, Wait: patience.Seconds()})
	}
	passed := map[string]bool{}
	for flow, answer := range answers {
		var did bool
		if err := answer(&did); err != nil {
			t.Fatal(err)
		}
		passed[flow] = did
	}
	return passed
}
