//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tangle-network/microvm-runtime/internal/flock"
)

const (
	partSuffix  = ".part"
	maxAttempts = 100 // Of one layer in all, however little each brings.
)

func (s *Store) blobPath(digest v1.Hash) string {
	return filepath.Join(s.dir.Blobs(), digest.Algorithm+"-"+digest.Hex)
}

// fetch returns a layer's file, which fits its descriptor. What was downloaded before is not downloaded again, and what is downloaded is there for the next attempt, also for
// that of another process.
func (r *registry) fetch(ctx context.Context, d v1.Descriptor, report func(done int64)) (*os.File, error) {
	path := r.store.blobPath(d.Digest)
	if f, err := os.Open(path); err == nil {
		report(d.Size)
		return f, nil
	}
	part, err := flock.Lock(ctx, path+partSuffix)
	if err != nil {
		return nil, err
	}
	defer part.Close()
	if f, err := os.Open(path); err == nil { // another process has been faster
		report(d.Size)
		return f, os.Remove(path + partSuffix)
	}
	err = r.complete(ctx, part, d, report)
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		if worthless(err) {
			err = errors.Join(err, os.Remove(part.Name()))
		}
		return nil, err
	}
	return os.Open(path)
}

// complete fills the file up until it fits. One that doesn't, and was begun by somebody else, is begun again once: power loss may have taken what was in it.
func (r *registry) complete(ctx context.Context, part *os.File, d v1.Descriptor, report func(done int64)) error {
	info, err := part.Stat()
	if err != nil {
		return err
	}
	download := &download{registry: r, part: part, want: d, report: report}
	err = download.run(ctx)
	if errors.Is(err, ErrDigest) && info.Size() > 0 {
		if err := part.Truncate(0); err != nil {
			return err
		}
		err = download.run(ctx)
	}
	return err
}

// download is a layer that is coming.
type download struct {
	*registry
	part   *os.File
	want   v1.Descriptor
	report func(done int64)

	hash hash.Hash
	done int64
}

func (d *download) run(ctx context.Context) error {
	if err := d.resume(ctx); err != nil {
		return err
	}
	failures := 0
	for n := 0; d.done < d.want.Size; n++ {
		before := d.done
		err := d.store.attended(ctx, d.attempt)
		if err == nil {
			continue
		}
		if failures++; d.done > before {
			failures = 1
		}
		if failures == attempts || n == maxAttempts || !temporary(ctx, err) {
			return err
		}
		if err := d.store.wait(ctx, failures); err != nil {
			return err
		}
	}
	if sum := fmt.Sprintf("%x", d.hash.Sum(nil)); sum != d.want.Digest.Hex {
		return fmt.Errorf("%w: %s is %s", ErrDigest, d.want.Digest, sum)
	}
	return nil
}

// resume takes over what is in the file.
func (d *download) resume(ctx context.Context) (err error) {
	if d.hash, err = v1.Hasher(d.want.Digest.Algorithm); err != nil {
		return err
	}
	if _, err := d.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	d.done, err = io.Copy(d.hash, &contextReader{ctx, io.LimitReader(d.part, d.want.Size)})
	if err != nil {
		return err
	}
	d.report(d.done)
	return d.part.Truncate(d.done)
}

// restart forgets what is in the file.
func (d *download) restart() error {
	d.done = 0
	d.hash.Reset()
	_, err := d.part.Seek(0, io.SeekStart)
	return errors.Join(err, d.part.Truncate(0))
}

// attempt gets the rest, or as much of it as comes.
func (d *download) attempt(ctx context.Context, alive func()) error {
	ranges := ""
	if d.done > 0 {
		ranges = fmt.Sprintf("bytes=%d-%d", d.done, d.want.Size-1)
	}
	response, err := d.get(ctx, "blobs/"+d.want.Digest.String(), ranges)
	if answer := (*transport.Error)(nil); errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable && d.done > 0 {
		if err := d.restart(); err != nil {
			return err
		}
		response, err = d.get(ctx, "blobs/"+d.want.Digest.String(), "")
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := d.begins(response); err != nil {
		return err
	}
	rest := d.want.Size - d.done
	if response.ContentLength > rest {
		return fmt.Errorf("%w: the registry sends %d bytes, and %d are left", ErrDigest, response.ContentLength, rest)
	}
	n, err := io.Copy(d, &livingReader{io.LimitReader(response.Body, rest+1), alive})
	switch {
	case n > rest:
		return fmt.Errorf("%w: the registry sends more than the %d bytes of the manifest", ErrDigest, d.want.Size)
	case err == nil && n < rest && hasEnd(response):
		return fmt.Errorf("%w: the registry has %d bytes, not the %d of the manifest", ErrDigest, d.done, d.want.Size)
	case err == nil && n < rest:
		return io.ErrUnexpectedEOF
	}
	return err
}

// hasEnd says that a body which ends was not cut.
func hasEnd(response *http.Response) bool {
	return response.ContentLength >= 0 || len(response.TransferEncoding) > 0 || response.ProtoMajor > 1
}

// begins makes sure that an answer goes on where the file ends.
func (d *download) begins(response *http.Response) error {
	if d.done == 0 {
		return nil
	}
	if response.StatusCode == http.StatusPartialContent {
		from := fmt.Sprintf("bytes %d-", d.done)
		if got := response.Header.Get("Content-Range"); got != "" && !strings.HasPrefix(got, from) {
			return fmt.Errorf("%w: the registry sends %q, and %q was asked for", ErrDigest, got, from)
		}
		return nil
	}
	return d.restart() // it knows no ranges
}

// Write adds to the file. What would be one byte too much stays out.
func (d *download) Write(p []byte) (int, error) {
	fit := p[:min(int64(len(p)), d.want.Size-d.done)]
	n, err := d.part.Write(fit)
	d.hash.Write(p[:n])
	d.done += int64(n)
	d.report(d.done)
	if err != nil {
		return n, err
	}
	return len(p), nil
}

// livingReader tells of each byte that comes.
type livingReader struct {
	r     io.Reader
	alive func()
}

func (l *livingReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.alive()
	}
	return n, err
}

// pruneBlobs removes downloads that nobody goes on with, and returns how many bytes they had.
func (s *Store) pruneBlobs() (freed int64, err error) {
	entries, err := os.ReadDir(s.dir.Blobs())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	errs := []error{err}
	for _, entry := range entries {
		path := filepath.Join(s.dir.Blobs(), entry.Name())
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue // gone meanwhile
		}
		size := allocated(path)
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil { // else it is coming
			errs = append(errs, os.Remove(path))
			freed += size
		}
		f.Close()
	}
	return freed, errors.Join(errs...)
}

// allocated returns what a file takes on disk, in bytes.
func allocated(path string) int64 {
	var stat syscall.Stat_t
	if syscall.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Blocks * 512
}
