//go:build linux

package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	attempts = 5 // Without any progress.
	maxPause = 10 * time.Second
)

// retry calls try until it works, fails for good, or has failed often.
func (s *Store) retry(ctx context.Context, try func(context.Context) error) error {
	for n := 1; ; n++ {
		err := s.attended(ctx, func(ctx context.Context, _ func()) error { return try(ctx) })
		if err == nil || n == attempts || !temporary(ctx, err) {
			return err
		}
		if err := s.wait(ctx, n); err != nil {
			return err
		}
	}
}

// wait is the pause after the nth failure in a row: twice as long each time, and never the same for two callers.
func (s *Store) wait(ctx context.Context, n int) error {
	pause := min(s.pause<<(n-1), maxPause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause/2 + rand.N(pause/2+1)):
		return nil
	}
}

var errStalled = errors.New("nothing has come for too long")

// attended ends an attempt that makes no progress: it has to call alive.
func (s *Store) attended(ctx context.Context, attempt func(ctx context.Context, alive func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(s.stall, func() { cancel(errStalled) })
	defer watch.Stop()
	err := attempt(ctx, func() { watch.Reset(s.stall) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// temporary says that another attempt may have more luck.
func temporary(ctx context.Context, err error) bool {
	if ctx.Err() != nil || worthless(err) {
		return false
	}
	if answer := (*transport.Error)(nil); errors.As(err, &answer) {
		return answer.Temporary() || answer.StatusCode >= 500
	}
	var (
		unknown   *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		noTLS     tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &authority), errors.As(err, &noTLS), errors.Is(err, syscall.ECONNREFUSED):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, errStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return true
	}
	var network net.Error
	return errors.As(err, &network)
}
