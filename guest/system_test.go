//go:build linux

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// changes are what an agent does to its system, and what makes no sense of them.
func changes(ctx context.Context, d guest.Dialer) (good, bad map[string]error) {
	clock := func(to time.Time) error { _, err := guest.SetClock(ctx, d, to); return err }
	return map[string]error{
			"clock": clock(time.Now()), "entropy": guest.AddEntropy(ctx, d, make([]byte, 32)), "host name": guest.SetHostname(ctx, d, "a-1.b"),
		}, map[string]error{
			"before 1970": clock(time.Unix(-1, 0)), "after 2262": clock(time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC)), "the zero time": clock(time.Time{}),
			"no entropy": guest.AddEntropy(ctx, d, nil), "too much entropy": guest.AddEntropy(ctx, d, make([]byte, 4097)),
			"no name": guest.SetHostname(ctx, d, ""), "a name with a space": guest.SetHostname(ctx, d, "a b"), "a dot at the end": guest.SetHostname(ctx, d, "a."),
		}
}

func TestAnAgentThatIsNotFirstChangesNothing(t *testing.T) {
	good, bad := changes(t.Context(), guesttest.New(t))
	for name, err := range good {
		if !errors.Is(err, guest.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range bad {
		if !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSkewIsTold(t *testing.T) {
	first := scripted(func(conn net.Conn, _ *http.Request) {
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"skew_ns\": -15}")
	})
	if skew, err := guest.SetClock(t.Context(), first, time.Now()); err != nil || skew != -15 {
		t.Errorf("%v, %v", skew, err)
	}
	good, _ := changes(t.Context(), first)
	for name, err := range good {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOlderAgentChangesNothing(t *testing.T) {
	good, _ := changes(t.Context(), older(t))
	for name, err := range good {
		if !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
