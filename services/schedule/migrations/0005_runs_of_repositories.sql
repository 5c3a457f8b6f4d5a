-- The newest run of a kind about a whole repository says when the next is due.
CREATE INDEX runs_of_repositories ON runs (kind, repository, create_time DESC)
  WHERE vm_identity = '';
