//go:build linux

package guest_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// listed returns the IDs of the commands that an agent knows.
func listed(t *testing.T, d guest.Dialer) string {
	t.Helper()
	list, err := guest.List(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	return strings.Join(ids, " ")
}

// TestACommandThatIsCancelledIsForgotten: its caller has its end, and nobody comes for it any more. One that nobody has waited for is kept.
func TestACommandThatIsCancelledIsForgotten(t *testing.T) {
	a := guesttest.New(t)
	kept := guest.Command(a, "true")
	kept.ID, kept.Detached = "kept", true
	if err := kept.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{"alone": "exec sleep 1000", "with a session": jobs["jobs in groups of their own"], "with much to say": "exec yes"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := guest.Command(a, "bash", "-c", script)
			if err := c.Start(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := within(t, c.Wait); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if got := listed(t, a); got != "kept" {
				t.Errorf("the agent knows %s, want kept alone", got)
			}
		})
	}
	if err := guest.Attach(a, "kept").Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// slow is an agent whose first answer comes when it is let go.
type slow struct {
	guest.Dialer
	once  sync.Once
	asked chan struct{}
}

func (s *slow) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := s.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	s.once.Do(func() { conn = &silent{Conn: conn, asked: s.asked} })
	return conn, nil
}

// silent is a connection on which no answer comes.
type silent struct {
	net.Conn
	asked chan struct{}
}

func (s *silent) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.asked <- struct{}{}
	return n, err
}

func (s *silent) Read(p []byte) (int, error) {
	for {
		if _, err := s.Conn.Read(p); err != nil {
			return 0, err
		}
	}
}

// TestAStartThatIsCancelledLeavesNothing: the command may have begun when its caller goes without the answer.
func TestAStartThatIsCancelledLeavesNothing(t *testing.T) {
	a := guesttest.New(t)
	d := &slow{Dialer: a, asked: make(chan struct{}, 10)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- guest.Command(d, "sleep", "1000").Start(ctx) }()
	<-d.asked
	for begin := time.Now(); listed(t, a) == ""; {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("it does not begin")
		}
	}
	cancel()
	if err := within(t, func() error { return <-started }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := listed(t, a); got != "" {
		t.Errorf("the agent knows %s", got)
	}
}
