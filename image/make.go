//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
)

// make returns the image of a recipe, building it where the store lacks it, and makes names mean it.
func (s *Store) make(ctx context.Context, r recipe, names []string, limits flatten.Limits, report *reporter) (Image, error) {
	unlock, err := s.dir.Lock(ctx, r.digest)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if _, err := s.dir.Get(r.digest); errors.Is(err, microvm.ErrNotFound) || errors.Is(err, imagestore.ErrDamaged) {
		err = s.build(ctx, r, limits, report)
		if err != nil {
			return Image{}, err
		}
	} else if err != nil {
		return Image{}, err
	}
	if err := s.dir.Name(ctx, r.digest, names...); err != nil {
		return Image{}, err
	}
	entry, err := s.dir.Get(r.digest)
	return imageOf(entry), err
}

// build makes the image and puts it in the store, or leaves nothing but downloads that are worth keeping.
func (s *Store) build(ctx context.Context, r recipe, limits flatten.Limits, report *reporter) (err error) {
	if err := s.dir.Drop(r.digest); err != nil { // a damaged one
		return err
	}
	if err := s.dir.Build(r.digest); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dir.Abandon(r.digest))
		}
		if err == nil || worthless(err) {
			s.forget(r)
		}
	}()
	blobs, err := s.gather(ctx, r, report)
	defer func() {
		for _, b := range blobs {
			if b.Closer != nil {
				b.Close()
			}
		}
	}()
	if err != nil {
		return err
	}
	base, err := s.convert(ctx, r, blobs, limits, report)
	if err != nil {
		return err
	}
	return s.dir.Commit(imagestore.Record{
		Digest: r.digest, Platform: r.platform, Created: time.Now().Round(0), Size: base.Size, SHA256: base.SHA256, Config: r.config,
	})
}

// gather gets all layers, several at once.
func (s *Store) gather(ctx context.Context, r recipe, report *reporter) ([]blob, error) {
	need := int64(0)
	for _, p := range r.layers {
		need += p.Size - min(p.Size, max(allocated(s.blobPath(p.Digest)), allocated(s.blobPath(p.Digest)+partSuffix)))
	}
	if _, remote := r.from.(*registry); remote {
		if err := hasRoom(s.dir.Blobs(), need); err != nil {
			return nil, err
		}
	}
	blobs := make([]blob, len(r.layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.jobs)
	for i, p := range r.layers {
		group.Go(func() (err error) {
			stage := report.stage(StageDownload, p.Digest.String(), p.Size)
			blobs[i], err = r.from.layer(ctx, p.Descriptor, stage.at)
			return err
		})
	}
	return blobs, group.Wait()
}

// convert makes the base.
func (s *Store) convert(ctx context.Context, r recipe, blobs []blob, limits flatten.Limits, report *reporter) (Base, error) {
	layers := make([]flatten.Layer, len(blobs))
	reading := make([]*stage, len(blobs))
	for i, b := range blobs {
		reading[i] = report.stage(StageRead, r.layers[i].Digest.String(), 0)
		layers[i] = flatten.Layer{
			Open:   func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(b, 0, b.size)), nil },
			DiffID: r.layers[i].diffID, Plain: r.plain, Volatile: b.volatile,
		}
	}
	tree, err := flatten.Read(ctx, layers, limits, func(i int, n int64) { reading[i].add(n) })
	if err != nil {
		return Base{}, err
	}
	for _, stage := range reading {
		stage.end()
	}
	path := s.dir.Base(r.digest)
	census := tree.Census()
	if err := hasRoom(filepath.Dir(path), baseSize(census)); err != nil {
		return Base{}, err
	}
	building := report.stage(StageBuild, "", census.Content)
	return fromTree(ctx, tree, path, building.add)
}

// baseSize returns about how large a base will be, in bytes, and never less.
func baseSize(c flatten.Census) int64 {
	const inode, entry, slack = 320, 16, 4 << 20
	return c.Bytes + c.Bytes>>12 + c.Inodes*inode + c.Dirs*blockSize + c.Names*entry + 2*c.Meta + slack
}

// hasRoom refuses before anything is written what would not fit.
func hasRoom(dir string, need int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if has := int64(fs.Bavail) * fs.Bsize; has < need {
		return fmt.Errorf("%w: %s has %d MiB free, and %d are needed (microvm image prune makes room)", microvm.ErrExhausted, dir, has>>20, need>>20+1)
	}
	return nil
}

// forget removes a recipe's downloads.
func (s *Store) forget(r recipe) {
	if _, remote := r.from.(*registry); !remote {
		return
	}
	for _, p := range r.layers {
		os.Remove(s.blobPath(p.Digest))
	}
}

// reporter tells a caller of progress, one call at a time.
type reporter struct {
	mu   sync.Mutex
	tell func(Progress)
}

func newReporter(tell func(Progress)) *reporter { return &reporter{tell: tell} }

// stage is one thing that makes progress. It tells of every step of a MiB, and of its beginning and end.
type stage struct {
	reporter *reporter
	now      Progress
	told     int64
}

func (r *reporter) stage(what Stage, layer string, total int64) *stage {
	s := &stage{reporter: r, now: Progress{Stage: what, Layer: layer, Total: total}, told: -1}
	if what != StageRead {
		s.at(0)
	}
	return s
}

const step = 1 << 20

func (s *stage) at(done int64) {
	s.now.Done = done
	if s.told < 0 || done < s.told || done-s.told >= step || done == s.now.Total && done != s.told {
		s.say()
	}
}

func (s *stage) add(n int64) { s.at(s.now.Done + n) }

// end says that a stage whose total was not known is over.
func (s *stage) end() {
	s.now.Total = s.now.Done
	s.say()
}

func (s *stage) say() {
	s.told = s.now.Done
	if s.reporter.tell == nil {
		return
	}
	s.reporter.mu.Lock()
	defer s.reporter.mu.Unlock()
	s.reporter.tell(s.now)
}
