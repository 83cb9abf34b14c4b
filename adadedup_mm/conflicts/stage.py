class ConflictStages: pass
class Conflicts: pass
